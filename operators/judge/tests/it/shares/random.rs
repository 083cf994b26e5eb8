//! Seeded draws for the invented world.

pub(crate) struct Random(fastrand::Rng);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(fastrand::Rng::with_seed(seed))
    }

    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.0.f64()
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0.usize(0..end)
    }

    pub(crate) fn hours(&mut self, low: u32, high: u32) -> u32 {
        self.0.u32(low..high)
    }

    pub(crate) fn chance(&mut self, share: f64) -> bool {
        self.0.f64() < share
    }

    pub(crate) fn normal(&mut self) -> f64 {
        (-2.0 * self.0.f64().max(1e-300).ln()).sqrt() * (std::f64::consts::TAU * self.0.f64()).cos()
    }

    pub(crate) fn poisson(&mut self, mean: f64) -> u64 {
        if mean <= 0.0 {
            return 0;
        }
        if mean > 40.0 {
            return (mean + mean.sqrt() * self.normal() + 0.5).max(0.0) as u64;
        }
        let (floor, mut product, mut count) = ((-mean).exp(), self.0.f64(), 0);
        while product > floor {
            product *= self.0.f64();
            count += 1;
        }
        count
    }

    /// Binomial: exact for few trials, by Poisson where rare, by normal where both are many.
    pub(crate) fn binomial(&mut self, trials: u64, share: f64) -> u64 {
        if trials == 0 || share <= 0.0 {
            return 0;
        }
        if share >= 1.0 {
            return trials;
        }
        if share > 0.5 {
            return trials - self.binomial(trials, 1.0 - share);
        }
        let mean = trials as f64 * share;
        if trials <= 24 {
            return (0..trials).filter(|_| self.0.f64() < share).count() as u64;
        }
        if mean > 30.0 {
            let spread = (mean * (1.0 - share)).sqrt();
            return (mean + spread * self.normal() + 0.5).clamp(0.0, trials as f64) as u64;
        }
        if share < 0.05 {
            return self.poisson(mean).min(trials);
        }
        (0..trials).filter(|_| self.0.f64() < share).count() as u64
    }
}
