//! A cheap load generator for any etcd v3 endpoint.
