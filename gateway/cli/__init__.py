"""The command line: verbs -> `GatewayApi` -> tables or JSON.

app.py       verbs and their options; serving.py and retaining.py add those of the engine and of retention
main.py      runs a command line; the one place that maps errors and reports to exit codes
run.py       what one invocation knows: options, log, streams; opens the api
cold.py      verbs for what lies in cold storage classes: lifecycle
render.py    reports as tables and lines for people
plain.py     reports as JSON
progress.py  progress bars
"""

from gateway.cli.main import main

__all__ = ["main"]
