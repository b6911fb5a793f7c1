//! Rotary positions (Su et al. 2021, arXiv 2104.09864), as transformers 5.23 has them: the two
//! halves of a head's values are the parts of its pairs.

use std::cell::RefCell;

use tch::{Device, Kind, TchError, Tensor};

/// Turns queries and keys by their positions, counted from 0.
pub(super) struct Rotary {
    /// A pair's angle per position, of each of d / 2 pairs.
    speeds: Vec<f32>,
    kind: Kind,
    device: Device,
    /// Of the positions that were needed so far.
    table: RefCell<Option<Table>>,
}

/// Cosines and sines of the angles of each position, `[T, d]` each.
struct Table {
    cos: Tensor,
    sin: Tensor,
}

impl Rotary {
    /// For heads of even width `d`: pair i turns by `theta^(-2 i / d)` a position. The table is in
    /// `kind` on `device`.
    pub fn new(d: i64, theta: f64, kind: Kind, device: Device) -> Self {
        let speed = |pair: i64| theta.powf(-2.0 * pair as f64 / d as f64) as f32;
        Self { speeds: (0..d / 2).map(speed).collect(), kind, device, table: RefCell::default() }
    }

    /// Queries or keys `[N, heads, T, d]`, turned; in their dtype, computed in that of the table.
    pub fn turn(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let tokens = x.size()[2];
        let mut table = self.table.borrow_mut();
        let known = table.take().filter(|known| known.cos.size()[0] >= tokens);
        let known = match known {
            Some(known) => known,
            // Twice as many, so that slowly growing samples do not make it anew each time.
            None => self.table_of(tokens.saturating_add(tokens))?,
        };
        let turned = self.turn_by(x, &known.cos.f_narrow(0, 0, tokens)?, &known.sin.f_narrow(0, 0, tokens)?);
        *table = Some(known);
        turned
    }

    fn turn_by(&self, x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor, TchError> {
        let wide = x.f_to_kind(self.kind)?;
        let half = self.speeds.len() as i64;
        let (first, second) = (wide.f_narrow(3, 0, half)?, wide.f_narrow(3, half, half)?);
        let crossed = Tensor::f_cat(&[&second.f_neg()?, &first], 3)?;
        wide.f_mul(cos)?.f_add(&crossed.f_mul(sin)?)?.f_to_kind(x.kind())
    }

    /// Angles are products in f32 whatever the dtype is, as models were trained with. Their cosines
    /// are computed in f64, each alone, so that they depend neither on the processor nor on how
    /// many there are.
    fn table_of(&self, tokens: i64) -> Result<Table, TchError> {
        let angle = |position: i64| self.speeds.iter().map(move |speed| f64::from(position as f32 * speed));
        // Both parts of a pair turn by the same angle.
        let angles: Vec<f64> = (0..tokens).flat_map(|position| angle(position).chain(angle(position))).collect();
        let ready = |function: fn(f64) -> f64| {
            let values: Vec<f64> = angles.iter().map(|&angle| function(angle)).collect();
            let size = [tokens, 2 * self.speeds.len() as i64];
            Tensor::f_from_slice(&values)?.f_view(size)?.f_to_kind(self.kind)?.f_to_device(self.device)
        };
        Ok(Table { cos: ready(f64::cos)?, sin: ready(f64::sin)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_turn_by_their_position() {
        let rotary = Rotary::new(4, 100.0, Kind::Double, Device::Cpu);
        // A table that is too small is made anew, and one that is too large is used.
        for tokens in [1, 3, 2] {
            let x = Tensor::from_slice(&[1.0, 0.0, 0.0, 2.0]).view([1, 1, 1, 4]).repeat([1, 1, tokens, 1]);
            let turned = Vec::<f64>::try_from(rotary.turn(&x).unwrap().view(-1)).unwrap();
            assert_eq!(turned.len() as i64, 4 * tokens);
            for (position, found) in turned.chunks(4).enumerate() {
                let (a, b) = (position as f64, f64::from((position as f32) * 0.1f32));
                let expected = [a.cos(), -2.0 * b.sin(), a.sin(), 2.0 * b.cos()];
                assert!(found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 1e-15), "{found:?} {expected:?}");
            }
        }
    }

    #[test]
    fn narrow_values_stay_narrow() {
        let rotary = Rotary::new(4, 100.0, Kind::Float, Device::Cpu);
        let x = Tensor::ones([1, 1, 2, 4], (Kind::BFloat16, Device::Cpu));
        assert_eq!(rotary.turn(&x).unwrap().kind(), Kind::BFloat16);
    }
}
