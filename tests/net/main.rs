//! Whole nodes behind home routers: network namespaces are the machines, virtual
//! Ethernet is the cable, and nftables is what the routers do (docs/testing-networks.md).
//!
//! Needs root, and nftables. Nothing here can reach the network of the machine:
//! no namespace has a cable to it.

#![cfg(target_os = "linux")]

mod capture;
mod home;
mod idle;
mod lab;
mod lan;
mod mappings;
mod matrix;
mod mesh;
mod pmpd;
mod probe;
mod reach;
mod roam;
mod router;
mod routers;
mod upnpd;
mod wire;
