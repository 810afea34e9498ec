// Package copymgr is the copy manager (SPC-4 r37 5.17): it translates the
// third-party copy commands of a logical unit into offload reads and writes of
// the token manager, and keeps what RECEIVE ROD TOKEN INFORMATION and RECEIVE
// COPY STATUS tell about them afterwards, by list identifier and I_T nexus.
//
// One Manager serves every logical unit of a target service, so a token made
// through one logical unit, target or session is good on all others.
//
// Where the standards leave a choice, the commands behave as Windows' class
// driver and copy engine understand: no partial token if it can be helped; a
// write that ends early says how far it came (COPY TARGET DEVICE DATA UNDERRUN
// with the count in INFORMATION) and is never GOOD; status 03h does not occur.
package copymgr
