//! The namespace lab: client, gateway and server on one machine, with real traffic.
