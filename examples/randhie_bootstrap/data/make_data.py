"""Creates randhie.csv from the copy of the data in the Python package statsmodels.

    python -m venv venv && venv/bin/pip install statsmodels==0.15.0
    venv/bin/python make_data.py > randhie.csv

The package has the ten columns of the model (randhie.csv) and the original file with all 45 (src/randhie.csv), in the
same order of rows. Only the number of the person is read from the second. The nine columns that the package left
unchanged must agree in every row, so that no number is assigned to the wrong row.
"""

import csv
import sys
from pathlib import Path

import statsmodels

UNCHANGED = ["mdvis", "idp", "lpi", "fmde", "physlm", "disea", "hlthg", "hlthf", "hlthp"]


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
    for row, original_row in zip(model, original):
        for column in UNCHANGED:
            assert abs(float(row[column]) - float(original_row[column])) < 1e-6, (column, row, original_row)
        # Numbered in order of appearance, because the original numbers encode where a family lived.
        person = persons.setdefault(original_row["zper"], len(persons) + 1)
        out.writerow([person, *row.values()])


if __name__ == "__main__":
    main()
