//! Slow start: a server that comes back gets its share little by little.

use super::FULL_SHARE;

/// The share of its weight, in thousandths, of a server that came up `up_ms` ago and is to reach its full weight after
/// `window_ms`. It grows in a straight line, from a twentieth: less would leave a cold server without the traffic it warms up
/// with.
pub fn share(up_ms: u64, window_ms: u64) -> u16 {
    if up_ms >= window_ms {
        return FULL_SHARE;
    }
    let full = u64::from(FULL_SHARE);
    (full * up_ms / window_ms).max(full / 20) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_in_a_straight_line_to_the_whole() {
        let cases = [
            (0, 50),
            (49, 50),
            (100, 100),
            (500, 500),
            (999, 999),
            (1000, 1000),
            (5000, 1000),
        ];
        for (up_ms, expected) in cases {
            assert_eq!(share(up_ms, 1000), expected, "{up_ms} ms");
        }
        assert_eq!(share(0, 0), 1000);
    }
}
