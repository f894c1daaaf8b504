//! Drawing a server with a chance in proportion to its weight, in constant time.

use super::Candidate;
use super::rng::below;

/// Walker's alias table, built as Vose describes (IEEE Transactions on Software Engineering 17(9), 1991). Each column holds a
/// server and the one that has the rest of the column.
#[derive(Debug, Default)]
pub(super) struct Alias {
    columns: Vec<Column>,
}

#[derive(Clone, Copy, Debug)]
struct Column {
    /// Draws below this take `own`, the others `other`; of 2^32.
    limit: u64,
    own: Candidate,
    other: Candidate,
}

impl Alias {
    /// A table over these candidates.
    pub(super) fn new(candidates: &[Candidate]) -> Self {
        let total: u64 = candidates.iter().map(|c| u64::from(c.weight)).sum();
        let columns = candidates
            .iter()
            .map(|&c| Column {
                limit: 1 << 32,
                own: c,
                other: c,
            })
            .collect();
        let mut table = Self { columns };
        // A column holds `total`, a candidate fills `weight * n` of it: whole numbers, so nothing is lost to rounding here.
        let mut fill: Vec<u64> = candidates
            .iter()
            .map(|c| u64::from(c.weight) * candidates.len() as u64)
            .collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..fill.len()).partition(|&i| fill[i] < total);
        while let (Some(short), Some(&long)) = (small.pop(), large.last()) {
            table.columns[short].limit =
                ((u128::from(fill[short]) << 32) / u128::from(total)) as u64;
            table.columns[short].other = candidates[long];
            fill[long] -= total - fill[short];
            if fill[long] < total {
                large.pop();
                small.push(long);
            }
        }
        table
    }

    /// The candidate that these 64 random bits select; `None` when there is none.
    pub(super) fn draw(&self, bits: u64) -> Option<Candidate> {
        let column = self.columns.get(below(bits, self.columns.len()))?;
        // The column came from the upper bits; the lower half is independent of it for any table of fewer than 2^32 columns.
        Some(if bits & 0xffff_ffff < column.limit {
            column.own
        } else {
            column.other
        })
    }
}
