// Package peers tests what servers do with each other: odx processes with stores of their
// own, each on a host of its own, whose links are slow, lose packets without a word or are
// down, while servers are killed. libiscsi, curl and qemu-img judge.
package peers
