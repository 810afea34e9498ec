// Package sense has sense data: sense keys, additional sense codes, and the error that
// ends a command with CHECK CONDITION, in the fixed and in the descriptor format (SPC-4
// r37 4.5).
package sense
