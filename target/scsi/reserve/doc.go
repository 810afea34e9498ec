// Package reserve has the reservations of a logical unit: persistent ones (SPC-4 r37
// 5.12, 6.15, 6.16), and RESERVE and RELEASE of SPC-2. It checks accesses for
// conflicts, applies and reports changes, and keeps persistent reservations across a
// loss of power for initiators that request it (APTPL).
//
// A change works on a copy of the state, is made durable if required, and only then
// becomes visible: commands read an immutable view through one atomic pointer, which is
// nil while nothing is reserved.
package reserve
