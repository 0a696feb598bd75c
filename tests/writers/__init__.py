"""Writers as a spool has them, from a seed; what they left at every moment; and a judge of what was made of it.

=================  ===================================================================================================
`content`          bytes with and without a structure that shows their end
`plan`, `kinds`    a `Schedule` of steps from a seed; pure
`hands`, `smb`     what carries a step out: on a directory, over SMB, in memory; `child`: in a process to be killed
`play`             executes a schedule and says what lay where and when: the `Oracle`
`judge`            violations of "ingest is never fooled", of an oracle and what generations hold
`generations`      what generations hold, asked of the product by its command line
=================  ===================================================================================================

So a gateway that runs beside the writers is judged::

    with gateway.start("serve") as serving, Samba(spool) as server:
        plan = schedule(seed, local=False, small_files=100)
        player = Player(plan, OnDisk(spool, server.address), settle_seconds=1.0)
        oracle = player.play(rest=10)        # long enough for the last versions to be found
        generations = read_generations(gateway, "src")
    rules = Rules(minimum_evidence=2, settle_seconds=1.0, grace_seconds=4.5, apart_seconds=3.0)
    assert not judge(oracle, generations, rules)

`grace_seconds` is the promise that is tested: after how long of standing a version must be in a generation. What has to
be found stands for five settle times at least (`kinds.STAND`), so with more grace than that only the last versions are
asked for.
"""
