//! Comparing the app's answers with the file.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use anyhow::{Context, bail};

use crate::CheckArgs;
use crate::board::{Board, compute};
use crate::client::Client;
use crate::flights::{Journal, read};

const BUSIEST_SHOWN: usize = 10;
const PROBLEMS_SHOWN: usize = 5;

/// Asks for every airport of the file and compares.
pub(crate) async fn check(args: CheckArgs) -> anyhow::Result<()> {
    let flights = read(&args.file)?;
    let journal = args.journal.as_deref().map(Journal::read).transpose()?.unwrap_or_default();
    let least = compute(&flights, |number| args.feeds + u64::from(journal.acked.contains(&number)));
    let most = compute(&flights, |number| {
        args.feeds + u64::from(journal.acked.contains(&number) || journal.sent.contains(&number))
    });
    let client = Client::new(&args.at);
    let mut answers = BTreeMap::new();
    let mut problems = Vec::new();
    for (airport, least) in &least {
        let answer = ask(&client, airport).await?;
        let most = &most[airport];
        if least == most && answer != *least {
            problems.push(format!("{airport}: the app says {answer:?}, the file says {least:?}"));
        } else if answer.flights < least.flights || answer.flights > most.flights {
            let (low, high) = (least.flights, most.flights);
            problems.push(format!("{airport}: the app has {} flights, not {low} to {high}", answer.flights));
        }
        answers.insert(airport, answer);
    }
    print_busiest(&answers);
    let total: u64 = answers.values().map(|board| board.flights).sum();
    let (acked, unanswered) = (journal.acked.len(), journal.sent.len());
    println!("{} airports, {total} flights in the app", answers.len());
    if !problems.is_empty() {
        let shown = problems.iter().take(PROBLEMS_SHOWN).cloned().collect::<Vec<_>>().join("\n  ");
        bail!("{} of {} airports differ:\n  {shown}", problems.len(), answers.len());
    }
    if args.journal.is_some() && unanswered > 0 {
        println!(
            "every flight of {} whole feeds and all {acked} acknowledged ones of the cut one are there; of \
             its {unanswered} unanswered ones some may be",
            args.feeds
        );
    } else {
        println!("equal: flights, delays and destinations of every airport are what the file says");
    }
    Ok(())
}

async fn ask(client: &Client, airport: &str) -> anyhow::Result<Board> {
    let answer = client.get(&format!("/airports/{airport}")).await?;
    if answer.status == http::StatusCode::NOT_FOUND {
        return Ok(Board::default());
    }
    let said = String::from_utf8_lossy(&answer.body);
    if !answer.status.is_success() {
        bail!("asked for {airport}, the app answered {}: {said}", answer.status);
    }
    serde_json::from_slice(&answer.body).with_context(|| format!("the app's answer for {airport}: {said}"))
}

fn print_busiest(answers: &BTreeMap<&String, Board>) {
    let mut boards: Vec<_> = answers.iter().collect();
    boards.sort_by_key(|(airport, board)| (Reverse(board.flights), *airport));
    println!("busiest airports    flights    mean delay");
    for (airport, board) in boards.into_iter().take(BUSIEST_SHOWN) {
        println!("  {airport:<16}  {:>7}    {:>6.1} min", board.flights, board.mean_delay());
    }
}
