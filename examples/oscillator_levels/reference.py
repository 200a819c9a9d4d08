"""Computes the reference energies in `src/main.rs` by another method: the Schrödinger equation on a grid
(D. T. Colbert and W. H. Miller, J. Chem. Phys. 96, 1982 (1992)). Needs NumPy; was run with NumPy 2.4.6."""

import numpy as np


def energies(strength, points):
    reach = 7 / (1 + 6 * strength) ** (1 / 6)
    x, step = np.linspace(-reach, reach, points, retstep=True)
    i = np.arange(points)
    apart = i[:, None] - i[None, :]
    kinetic = np.where(apart == 0, np.pi**2 / 6, (-1.0) ** apart / np.where(apart == 0, 1, apart) ** 2) / step**2
    return np.linalg.eigvalsh(kinetic + np.diag(x**2 / 2 + strength * x**4))[:4]


for strength in [0.1, 0.5, 1, 2, 10, 50, 200, 1000]:
    coarse, fine = energies(strength, 201), energies(strength, 301)
    assert np.abs(fine - coarse).max() < 5e-10
    print(strength, *(f"{energy:.9f}" for energy in fine))
