"""Prints the figures in src/reference.rs, computed by statsmodels from randhie.csv.

    python -m venv venv && venv/bin/pip install statsmodels==0.15.0
    venv/bin/python reference.py
"""

from pathlib import Path

import pandas as pd
import statsmodels.api as sm


def main():
    data = pd.read_csv(Path(__file__).parent / "randhie.csv")
    x = sm.add_constant(data.drop(columns=["person", "mdvis"]), prepend=False)
    poisson = sm.Poisson(data["mdvis"], x)
    exact = {"method": "newton", "tol": 1e-14, "maxiter": 100, "disp": False}
    naive = poisson.fit(**exact)
    robust = poisson.fit(cov_type="HC0", **exact)
    clustered = poisson.fit(cov_type="cluster", cov_kwds={"groups": data["person"]}, **exact)
    print(f"{'':8} {'coefficient':>18} {'naive':>16} {'HC0':>16} {'clustered':>16}")
    for name in x.columns:
        fits = (naive.params, naive.bse, robust.bse, clustered.bse)
        print(f"{name:8} {fits[0][name]:18.12f}" + "".join(f" {fit[name]:16.12f}" for fit in fits[1:]))


if __name__ == "__main__":
    main()
