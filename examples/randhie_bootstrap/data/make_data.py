"""Makes randhie.csv from the copy of the data in the Python package statsmodels.

    python -m venv venv && venv/bin/pip install statsmodels==0.15.0
    venv/bin/python make_data.py > randhie.csv

The package has the ten columns of the model (randhie.csv) and the original file with all 45 (src/randhie.csv), in the
same order of rows. The second is read for the number of the person alone; the nine columns in both that the package
left as they were have to agree in every row, so that a number cannot meet the wrong row.
"""

import csv
import sys
from pathlib import Path

import statsmodels

SAME = ["mdvis", "idp", "lpi", "fmde", "physlm", "disea", "hlthg", "hlthf", "hlthp"]


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def main():
    folder = Path(statsmodels.__file__).parent / "datasets" / "randhie"
    model = read(folder / "randhie.csv")
    original = read(folder / "src" / "randhie.csv")
    assert len(model) == len(original) == 20190

    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(["person", *model[0]])
    persons = {}
    for ours, theirs in zip(model, original):
        for column in SAME:
            assert abs(float(ours[column]) - float(theirs[column])) < 1e-6, (column, ours, theirs)
        # Numbered in order of appearance: the original numbers say where a family lived.
        person = persons.setdefault(theirs["zper"], len(persons) + 1)
        out.writerow([person, *ours.values()])


if __name__ == "__main__":
    main()
