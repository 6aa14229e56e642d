"""The measured table of docs/results.md: a declared list of experiments, trained, scored, and rendered.

    make results DATA=mosi.pkl          python -m benchmarks.results run --data mosi.pkl
    make results-table                  python -m benchmarks.results table

plan.py      what is to be trained: benchmarks/results.yaml, checked
run.py       trains what is missing, some trainings side by side, each in a process of its own
scores.py    what stays of one training: benchmarks/scores/<corpus>/<experiment>-<seed>.json
search.py    the study over the loss weights and the choice from it: benchmarks/scores/<corpus>/search.json
report.py    what scores alone do not say of the main systems: benchmarks/scores/<corpus>/report.json
code.py      by which code it was made
statistics.py  means over seeds, their intervals, paired differences
page.py, figure.py, report_section.py, search_section.py   docs/results.md and its figure, from these files alone
"""
