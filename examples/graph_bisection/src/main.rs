//! Cuts networks into two halves with as few links between them as possible. METIS, a library in C that is linked into this
//! program, tries 32 random seeds per network, one item each. The best cuts are compared with those that are proven
//! to be the smallest. Exits with 1 if they differ.

use std::process::ExitCode;

use metis::Graph;
use metis::option::Seed;
use serde::{Deserialize, Serialize};

const SEEDS: i32 = 32;

/// Network whose smallest cut into halves is known.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Network {
    /// Corners of a cube with this number of dimensions, linked by its edges.
    Hypercube(u32),
    /// Square grid with this number of nodes along each side, which is even.
    Grid(i32),
    /// Circle of this number of nodes, which is even.
    Ring(i32),
}

const NETWORKS: [Network; 5] =
    [Network::Hypercube(8), Network::Hypercube(10), Network::Grid(16), Network::Grid(24), Network::Ring(1000)];

/// Returns the number of links that METIS cuts to halve the network.
#[cloudknot::remote(vcpus = 1, memory = "512 MiB", timeout = "5m")]
fn bisect(network: Network, seed: i32) -> Result<i32, String> {
    let failed = |error: &dyn std::error::Error| format!("METIS cannot halve {network:?}: {error}");
    let nodes = network.nodes();
    // Start of the neighbours of each node, and the neighbours of all nodes one after another.
    let (mut begins, mut neighbours) = (vec![0], Vec::new());
    for node in 0..nodes {
        neighbours.extend(network.neighbours(node));
        begins.push(i32::try_from(neighbours.len()).map_err(|error| failed(&error))?);
    }
    let mut halves = vec![0; begins.len() - 1];
    let graph = Graph::new(1, 2, &begins, &neighbours).map_err(|error| failed(&error))?;
    let cut = graph.set_option(Seed(seed)).part_recursive(&mut halves).map_err(|error| failed(&error))?;
    match halves.iter().sum::<i32>() {
        size if 2 * size == nodes => Ok(cut),
        size => Err(format!("{size} of the {nodes} nodes of {network:?} are not half")),
    }
}

#[cloudknot::main]
async fn main() -> cloudknot::Result<ExitCode> {
    let trials = NETWORKS.into_iter().flat_map(|network| (0..SEEDS).map(move |seed| (network, seed)));
    let cuts = bisect.map(trials).await?;

    println!("{:13}  {:>5}  {:>5}  {:>5}  {:>6}", "", "nodes", "best", "worst", "proven");
    let mut agree = true;
    for (network, cuts) in NETWORKS.iter().zip(cuts.chunks(SEEDS as usize)) {
        let (name, nodes, proven) = (format!("{network:?}"), network.nodes(), network.smallest_cut());
        let (best, worst) = cuts.iter().fold((i32::MAX, 0), |(best, worst), cut| (best.min(*cut), worst.max(*cut)));
        println!("{name:13}  {nodes:>5}  {best:>5}  {worst:>5}  {proven:>6}");
        agree &= best == proven;
    }
    println!(
        "{}",
        if agree { "All best cuts equal the proven minimum." } else { "Some cuts differ from the proven minimum." }
    );
    Ok(if agree { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Network {
    fn nodes(self) -> i32 {
        match self {
            Self::Hypercube(dimensions) => 1 << dimensions,
            Self::Grid(side) => side * side,
            Self::Ring(nodes) => nodes,
        }
    }

    /// Returns the nodes that `node` is linked with.
    fn neighbours(self, node: i32) -> Vec<i32> {
        match self {
            Self::Hypercube(dimensions) => (0..dimensions).map(|dimension| node ^ (1 << dimension)).collect(),
            Self::Grid(side) => {
                let (x, y) = (node % side, node / side);
                let left_right = [(x > 0, node - 1), (x + 1 < side, node + 1)];
                let up_down = [(y > 0, node - side), (y + 1 < side, node + side)];
                left_right.into_iter().chain(up_down).filter(|(exists, _)| *exists).map(|(_, other)| other).collect()
            }
            Self::Ring(nodes) => vec![(node + 1) % nodes, (node + nodes - 1) % nodes],
        }
    }

    /// Returns the fewest links that two halves can have between them. For the hypercube: L. H. Harper, Optimal assignments of
    /// numbers to vertices, J. SIAM 12, 131 (1964). For the grid: F. T. Leighton, Introduction to Parallel Algorithms and
    /// Architectures (1992).
    fn smallest_cut(self) -> i32 {
        match self {
            Self::Hypercube(dimensions) => 1 << (dimensions - 1),
            Self::Grid(side) => side,
            Self::Ring(_) => 2,
        }
    }
}
