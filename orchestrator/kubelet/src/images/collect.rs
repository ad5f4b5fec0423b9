//! Which images go when the disk is nearly full: those that nobody uses, the longest unused first.

use std::collections::HashSet;
use std::time::Duration;

use containerd_client::services::v1::ListImagesRequest;
use signal::Timestamp;

use super::Images;
use crate::error::Error;

/// An image that may go.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    name: String,
    size: u64,
    last_used: Timestamp,
}

/// Names to remove until `to_free` bytes are free. Pure.
fn choose(mut all: Vec<Candidate>, now: Timestamp, least_age: Duration, to_free: u64) -> Vec<String> {
    all.retain(|c| now.since(c.last_used) >= least_age);
    all.sort_by(|a, b| (a.last_used.nanos(), &a.name).cmp(&(b.last_used.nanos(), &b.name)));
    let mut freed = 0u64;
    let needed = all.into_iter().take_while(|c| {
        let more = freed < to_free;
        freed = freed.saturating_add(c.size);
        more
    });
    needed.map(|c| c.name).collect()
}

impl Images {
    /// Removes images that are not `used` (by normalised name) and were not asked for within `least_age`, until about
    /// `to_free` bytes are free. Gives their names; containerd frees the space at its next collection.
    pub async fn collect(
        &self,
        used: &HashSet<String>,
        now: Timestamp,
        least_age: Duration,
        to_free: u64,
    ) -> Result<Vec<String>, Error> {
        let request = self.containerd.request(ListImagesRequest { filters: Vec::new() });
        let list = self.client().list(request).await.map_err(Error::containerd("list images"))?;
        let mut all = Vec::new();
        for image in list.into_inner().images {
            let Some(target) = image.target.filter(|_| !used.contains(&image.name)) else { continue };
            let size = self.describe(&image.name, &target).await.map_or(0, |i| i.size);
            let named = image.updated_at.or(image.created_at);
            let named = Timestamp::from_secs(named.map_or(0, |t| t.seconds));
            let asked = self.last_used.lock().get(&image.name).copied();
            all.push(Candidate { last_used: asked.unwrap_or(named), name: image.name, size });
        }
        let names = choose(all, now, least_age, to_free);
        for name in &names {
            tracing::info!(name, "removing an unused image: the disk is nearly full");
            self.remove(name).await?;
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_unused_go_first_and_no_more_than_needed() {
        let image = |name: &str, size, at| Candidate {
            name: name.to_owned(),
            size,
            last_used: Timestamp::from_secs(at),
        };
        let all = vec![image("new", 5, 995), image("b", 10, 300), image("a", 10, 100), image("c", 10, 500)];
        let check = |to_free, expect: &[&str]| {
            let least = Duration::from_secs(120);
            assert_eq!(choose(all.clone(), Timestamp::from_secs(1000), least, to_free), expect, "{to_free}");
        };
        check(0, &[]);
        check(1, &["a"]);
        check(10, &["a"]);
        check(11, &["a", "b"]);
        check(1000, &["a", "b", "c"]);
    }
}
