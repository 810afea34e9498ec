// Package copymgr is the copy manager (SPC-4 r37 5.17): it translates the third-party
// copy commands of a logical unit into offload reads and writes of the token manager,
// and keeps the reports of the RECEIVE COPY commands and RECEIVE ROD TOKEN INFORMATION,
// by list identifier and I_T nexus.
//
// Each command that copies becomes an operation, which runs on a goroutine of the
// manager; the command waits for its end unless it requests background processing
// (IMMED). An abort of an operation waits until no more data moves.
//
// One Manager serves every logical unit of a target service, so a token created through
// one logical unit, target or session is valid on all others, and an EXTENDED COPY
// reaches every logical unit that its initiator can address.
//
// Where the standards leave a choice, the commands behave as Windows' class driver and
// copy engine expect: no partial token if avoidable; a write that ends early reports
// its progress (COPY TARGET DEVICE DATA UNDERRUN with the count in INFORMATION) and is
// never GOOD; status 03h is not used.
//
// Lock order: operations.mu is held alone, as is Manager.mu.
package copymgr
