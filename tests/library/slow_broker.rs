//! A broker that publishes, and answers no question in time.

use std::path::Path;
use std::time::Duration;

use mehl_soup::queue::{Depth, InProcess, Published, QueueError, QueueState, TicketQueue};
use mehl_soup::scheduler::{Scheduler, SchedulerSettings, Terms, admit, new_tasks};
use mehl_soup::store::Memory;
use mehl_soup::store::traits::*;
use mehl_soup::sweep::parse::{Format, parse_spec_text};
use mehl_soup::task::Ticket;
use tokio::sync::Notify;

struct Mute(InProcess);

fn late<T>() -> Result<T, QueueError> {
    Err(QueueError::Unreachable("no answer in time".to_string()))
}

impl TicketQueue for Mute {
    type Subscription = <InProcess as TicketQueue>::Subscription;
    type DeadLetter = <InProcess as TicketQueue>::DeadLetter;

    async fn ready(&self, patience: Duration) -> Result<(), QueueError> {
        self.0.ready(patience).await
    }

    async fn publish(&self, tickets: &[Ticket], patience: Duration) -> Published {
        self.0.publish(tickets, patience).await
    }

    async fn subscribe(&self, patience: Duration) -> Result<Self::Subscription, QueueError> {
        self.0.subscribe(patience).await
    }

    async fn depth(&self, _: Duration) -> Result<Depth, QueueError> {
        late()
    }

    async fn take_dead(&self, _: Duration) -> Result<Option<Self::DeadLetter>, QueueError> {
        late()
    }

    async fn probe(&self, _: Duration) -> Result<(), QueueError> {
        late()
    }

    fn state(&self) -> QueueState {
        self.0.state()
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

#[tokio::test]
async fn tickets_are_published_though_questions_are_not_answered_in_time() {
    let (store, queue) = (Memory::default(), Mute(InProcess::default()));
    let text = "zoo.ingredients = 'zoo/*'\ndata.learn = 'learn.safetensors'";
    let spec = parse_spec_text(text, Format::Toml, Path::new("/")).unwrap();
    admit(&store, &spec, &new_tasks(&spec), Terms::default(), None).await.unwrap();
    store.beat("a", Duration::from_secs(60), "{}").await.unwrap();
    let (settings, wake) = (SchedulerSettings::default(), Notify::new());
    let scheduler = Scheduler { store: &store, queue: &queue, settings: &settings, wake: &wake };
    let turn = scheduler.turn().await.unwrap();
    assert_eq!(turn.published, 1, "{turn:?}");
    assert!(turn.fault.is_some(), "the unanswered question is reported: {turn:?}");
    assert!(store.tickets().await.unwrap().outbox.is_empty());
}
