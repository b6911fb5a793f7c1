//! Lost workers, ended sweeps, and damaged records.

use std::time::Duration;

use super::{MOST_SWEEPS, Redis, answers, millis};
use crate::store::traits::{Repair, Upkeep};
use crate::store::{Expiries, Findings, StoreError};

impl Upkeep for Redis {
    async fn expire(&self, limit: usize, gap: Duration) -> Result<Expiries, StoreError> {
        let words: Vec<String> = self
            .call(&self.scripts.expire, |call| {
                call.arg(limit).arg(millis(gap));
            })
            .await?;
        answers::expiries(&words)
    }

    async fn retire(&self, sweeps: &[String]) -> Result<usize, StoreError> {
        let mut retired = 0;
        for ids in sweeps.chunks(MOST_SWEEPS) {
            retired += self
                .call::<usize>(&self.scripts.retire, |call| {
                    call.arg(ids);
                })
                .await?;
        }
        Ok(retired)
    }

    async fn adopt(&self) -> Result<usize, StoreError> {
        self.call(&self.scripts.adopt, |_| {}).await
    }

    async fn ended(&self, age: Duration, limit: usize) -> Result<Vec<String>, StoreError> {
        self.call(&self.scripts.ended, |call| {
            call.arg(millis(age)).arg(limit);
        })
        .await
    }
}

impl Repair for Redis {
    async fn examine(&self, sweep: &str, repair: bool) -> Result<Findings, StoreError> {
        self.call(&self.scripts.examine, |call| {
            call.arg(sweep).arg(u8::from(repair));
        })
        .await
    }

    async fn examine_pool(&self, repair: bool) -> Result<Findings, StoreError> {
        self.call(&self.scripts.examine_pool, |call| {
            call.arg(u8::from(repair));
        })
        .await
    }

    async fn discard(&self, sweep: &str, limit: usize) -> Result<bool, StoreError> {
        let left: usize = self
            .call(&self.scripts.discard, |call| {
                call.arg(sweep).arg(limit.max(1));
            })
            .await?;
        Ok(left == 0)
    }
}
