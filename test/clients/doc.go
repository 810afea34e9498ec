// Package clients has programs that others wrote judge a target: libiscsi's suites,
// iscsi-ls and iscsi-inq, qemu-img, and tshark; and compares what a target reports of
// itself with docs/conformance.md, and sends it damaged PDUs.
package clients
