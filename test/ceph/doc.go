// Package ceph has tests of stores in a pool of a real Ceph cluster. They are built with the
// tag rados.
package ceph
