// Package copymgr is the copy manager (SPC-4 r37 5.17): it translates the
// third-party copy commands of a logical unit into offload reads and writes of
// the token manager, and keeps what the RECEIVE COPY commands and RECEIVE ROD
// TOKEN INFORMATION tell about them afterwards, by list identifier and I_T nexus.
//
// Each command that copies becomes an operation, which runs on a goroutine of
// the manager; the command waits for its end unless it asked for the background
// (IMMED). Whatever ends an operation early waits until it moves no more data.
//
// One Manager serves every logical unit of a target service, so a token made
// through one logical unit, target or session is good on all others, and an
// EXTENDED COPY reaches all that its initiator can address.
//
// Where the standards leave a choice, the commands behave as Windows' class
// driver and copy engine understand: no partial token if it can be helped; a
// write that ends early says how far it came (COPY TARGET DEVICE DATA UNDERRUN
// with the count in INFORMATION) and is never GOOD; status 03h does not occur.
//
// Lock order: operations.mu is held alone, as is Manager.mu.
package copymgr
