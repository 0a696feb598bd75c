"""The benchmark behind `scripts/bench`: data sets, contenders, rounds, uploads, report, each a module.

A larger one adds data sets to `data.MAKERS`, contenders to `contenders.find` or measurements beside `rounds`.
"""
