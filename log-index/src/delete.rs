//! Deletion for good: partitions with what is to go are written anew without it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::db::LogIndex;
use crate::error::Error;
use crate::merge::{Gone, write};
use crate::partition::{Partition, temporary};
use crate::search::{BlockView, Over, Plan, Search};

impl LogIndex {
    /// Deletes what is stored when this is called, the search's conditions hold for, and `gone` says so of: it gets a
    /// block and the number of a row in it. Gives how many records that were. Once this has returned they are on no
    /// disk. A failure leaves some partitions done and the others as they were; it can be tried again.
    pub async fn delete(
        self: &Arc<Self>,
        s: Search,
        gone: impl Fn(&BlockView<'_>, usize) -> Result<bool, Error> + Send + 'static,
    ) -> Result<u64, Error> {
        self.flush().await?;
        let index = self.clone();
        let work = move || {
            let _one = index.rewriting.lock();
            let all: Vec<Arc<Partition>> = index.state.read().partitions.clone();
            all.iter().try_fold(0, |n, p| Ok(n + index.delete_from(p, &s, &gone)?))
        };
        tokio::task::spawn_blocking(work).await.map_err(|e| Error::Damaged {
            path: self.config.dir.clone(),
            what: format!("a deletion panicked: {e}"),
        })?
    }

    fn delete_from(
        &self,
        p: &Arc<Partition>,
        s: &Search,
        gone: &impl Fn(&BlockView<'_>, usize) -> Result<bool, Error>,
    ) -> Result<u64, Error> {
        let plan = Plan::new(self, s, Over::Partition(p.meta.seq))?;
        let (mut rows, mut count): (Gone, u64) = (HashMap::new(), 0);
        for unit in 0..plan.len() {
            let view = plan.view(unit)?;
            let mut of_block = vec![false; view.count()];
            for i in 0..view.len() {
                if gone(&view, i)?
                    && let Some(row) = of_block.get_mut(view.row(i))
                {
                    *row = true;
                    count += 1;
                }
            }
            if of_block.contains(&true)
                && let Some(block) = plan.block(unit)
            {
                rows.insert((0, block), of_block);
            }
        }
        if rows.is_empty() {
            return Ok(0);
        }
        p.set_merging(true);
        let seq = self.next_seq();
        let parts = [p.clone()];
        let left = write(&parts, &self.config, seq, i64::MIN, &rows).inspect_err(|_| {
            p.set_merging(false);
            // The error at hand is the one to tell; what is left here goes at the next start.
            drop(std::fs::remove_file(temporary(&self.config.dir, seq)));
        })?;
        {
            let mut state = self.state.write();
            state.partitions.retain(|q| q.meta.seq != p.meta.seq);
            state.partitions.extend(left.map(Arc::new));
        }
        std::fs::remove_file(&p.path).map_err(Error::io(&p.path))?;
        Ok(count)
    }
}
