//! The few functions that judging a share needs.

use std::f64::consts::PI;

/// Logarithm of the gamma function for x > 0, to about 1e-10: Stirling's series after shifting small arguments up.
pub(crate) fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut shift) = (x, 1.0);
    while x < 8.0 {
        shift *= x;
        x += 1.0;
    }
    let inverse = 1.0 / x;
    let square = inverse * inverse;
    let series = inverse * (1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square / 1680.0)));
    (x - 0.5) * x.ln() - x + 0.5 * (2.0 * PI).ln() + series - shift.ln()
}

/// Logarithm of the beta function.
pub(crate) fn ln_beta(a: f64, b: f64) -> f64 {
    ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b)
}

/// Logarithm of the probability of one sequence of `hits` and `misses` whose rate is Beta(a, b): the beta-binomial without
/// its binomial coefficient, which cancels in ratios. Counts needn't be whole.
pub(crate) fn ln_marginal(hits: f64, misses: f64, a: f64, b: f64) -> f64 {
    ln_beta(a + hits, b + misses) - ln_beta(a, b)
}

pub(crate) fn logit(share: f64) -> f64 {
    let share = share.clamp(1e-9, 1.0 - 1e-9);
    (share / (1.0 - share)).ln()
}

pub(crate) fn share_at(logit: f64) -> f64 {
    1.0 / (1.0 + (-logit).exp())
}

/// ln(exp(a) + exp(b)).
pub(crate) fn ln_add(a: f64, b: f64) -> f64 {
    let (high, low) = if a > b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gamma_of_whole_numbers_is_the_factorial() {
        let mut factorial: f64 = 1.0;
        for n in 1..30 {
            assert!((ln_gamma(f64::from(n)) - factorial.ln()).abs() < 1e-9, "{n}");
            factorial *= f64::from(n);
        }
        assert!((ln_gamma(0.5) - PI.sqrt().ln()).abs() < 1e-9);
        assert!((ln_gamma(1e-3) - 6.907_178_885_383_853).abs() < 1e-9);
    }

    #[test]
    fn marginals_of_all_sequences_sum_to_one() {
        let choose = [1.0, 5.0, 10.0, 10.0, 5.0, 1.0];
        let total: f64 = (0..6).map(|k| choose[k] * ln_marginal(k as f64, 5.0 - k as f64, 0.7, 2.3).exp()).sum();
        assert!((total - 1.0).abs() < 1e-9);
    }

    #[test]
    fn logit_and_back() {
        assert!((share_at(logit(0.3)) - 0.3).abs() < 1e-12);
        assert!((ln_add(1.0f64.ln(), 2.0f64.ln()) - 3.0f64.ln()).abs() < 1e-12);
    }
}
