"""The whole cluster on this machine, without containers: `make stack`, `make stack-down`.

    python -m infra.stack up          # all parts, each a process of its own on 127.0.0.1, and the deployments
    source .stack/stack.env           # lnln, Prefect, Dask and Ray of this shell now use it
    python -m infra.stack status
    python -m infra.stack down        # ends what `up` started, and nothing else

`parts.py` says what each part is, `processes.py` starts and ends one, `stack.py` puts them in order. Everything lies
below one folder: logs in `log/`, what is stored in `store/`, `prefect/`, `dask/`, `ray/`, addresses in `stack.env`.
"""
