//! What the HVM costs: every measurement is a criterion group with our function, `hvm`, and beside it its floors, the
//! same work without us. `benches/run` runs all rounds and prints the table.

mod bed;
mod commit;
mod image;
mod instance;
mod many;
mod request;
mod turns;
mod typed;

use std::time::Duration;

use criterion::Criterion;

const WARM_UP: Duration = Duration::from_millis(700);
const MEASUREMENT: Duration = Duration::from_secs(3);
const SAMPLES: usize = 30;

fn main() {
    let criterion = Criterion::default();
    let criterion = criterion.warm_up_time(WARM_UP).measurement_time(MEASUREMENT).sample_size(SAMPLES);
    let mut criterion = criterion.configure_from_args();
    instance::bench(&mut criterion);
    request::bench_queries(&mut criterion);
    request::bench_command(&mut criterion);
    turns::bench(&mut criterion);
    typed::bench(&mut criterion);
    commit::bench(&mut criterion);
    many::bench(&mut criterion);
    image::bench(&mut criterion);
    criterion.final_summary();
}
