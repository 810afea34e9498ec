// Package librados is the calls of Ceph's librados that package rados needs, in C. All of it
// is built with the tag rados alone.
package librados
