"""The measured speed of docs/performance.md: each figure beside a baseline of the same run, as a ratio.

    make bench [ONLY=data] [SHARED=1]    python -m benchmarks.performance run --only data --shared
    make bench-table                     python -m benchmarks.performance table

sections.py   what there is to measure, by name
data.py       section `data`: import, decoding, masks, views
corpus.py     the generated data that it works on
baselines.py  what others would do instead, written plainly
measure.py    contenders in turn, repetitions, ratios and their spread
record.py     what stays of one section: benchmarks/timings/<section>.json
training.py   section `training`: a step and an evaluation, beside plain_lnln.py
ranking.py    section `ranking`: SDUMC's Rank-N-Contrast, beside plain_rank_contrast.py
memory.py     section `memory`: the peak of that step
gpu.py        section `gpu`: whole steps on one GPU
scaling.py    what several machines can gain, by arithmetic
page.py       docs/performance.md, from these alone
"""
