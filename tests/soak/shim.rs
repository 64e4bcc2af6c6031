//! The soak in the shim: one thread makes the calls of all users in turn, and time passes as fast as they are executed.

use std::time::{Duration, Instant};

use end_to_end::{Host, Icllama, ShimHost};

use super::{Plan, Report, Sample, model, questions};

/// Time of the canister in which every user makes a call.
const ROUND: Duration = Duration::from_millis(500);

/// Runs it.
pub fn soak(plan: Plan) -> Report {
    let questions = questions();
    let mut users = plan.users(&questions);
    let mut icllama = Icllama::install(Box::new(ShimHost::new()), plan.config());
    icllama.serve("soak", &model());
    let begun = Instant::now();
    let (mut samples, mut next_upgrade) = (Vec::new(), plan.upgrades);
    while begun.elapsed() < plan.length {
        for user in &mut users {
            user.act(&mut icllama);
        }
        icllama.host.advance(ROUND);
        if begun.elapsed() >= next_upgrade {
            next_upgrade += plan.upgrades;
            samples.push(Sample::take(&mut icllama, begun.elapsed()));
            icllama.upgrade();
        }
    }
    users.iter_mut().for_each(|user| user.end(&mut icllama));
    Report::new(&mut icllama, users, samples, begun.elapsed())
}
