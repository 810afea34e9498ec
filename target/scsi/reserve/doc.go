// Package reserve is the reservations of a logical unit: persistent ones (SPC-4 r37 5.12,
// 6.15, 6.16), and RESERVE and RELEASE of SPC-2. It says which accesses of a nexus
// conflict with them, carries out changes, reports them, and keeps persistent
// reservations over a loss of power for initiators that ask for that (APTPL).
//
// A change works on a copy of the state, is made durable where it has to be, and only then
// is seen by other commands: they look at an immutable view through one atomic pointer,
// which is nil while nothing is reserved.
package reserve
