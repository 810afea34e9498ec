// Package security has other people's initiators prove who they are, and look
// for what they may not see: its tests are about libiscsi's programs; the Linux
// kernel's initiator is in package guest.
package security
