"""Writers as a spool has them, from a seed; what they left at every moment; and a judge of what was made of it.

=================  ===================================================================================================
`content`          bytes with and without a structure that shows their end
`plan`, `kinds`    a `Schedule` of steps from a seed; pure
`hands`, `smb`     what carries a step out: on a directory, over SMB, in memory; `child`: in a process to be killed
`play`             executes a schedule and says what lay where and when: the `Oracle`
`judge`            violations of "ingest is never fooled", of an oracle and what generations hold
`generations`      what generations hold, asked of the product by its command line
=================  ===================================================================================================
"""
