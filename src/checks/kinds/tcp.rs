//! The check of a port: does it accept?

use async_trait::async_trait;
use tokio::net::TcpStream;

use crate::checks::check::{Check, Finding};
use crate::checks::failure::Failure;
use crate::checks::plan::{Kind, Plan, Reading};
use crate::checks::service::Pace;

/// Connects, and says nothing.
struct Tcp {
    /// Host and port.
    address: String,
}

pub(super) const KIND: Kind =
    Kind { word: "tcp", about: "a port that accepts connections", pace: Pace::seconds(10, 2), read };

fn read(reading: &mut Reading<'_, '_>) -> Option<Plan> {
    let address = reading.address("The host and port that must accept.")?;
    Some(Plan::new(move |_| Tcp { address: address.clone() }))
}

#[async_trait]
impl Check for Tcp {
    async fn run(&self) -> Result<Finding, Failure> {
        TcpStream::connect(&self.address).await.map(|_| Finding::Works).map_err(|error| Failure::of(&error))
    }
}
