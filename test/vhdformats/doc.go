// Package vhdformats lets programs that others wrote, qemu and libvhdi, judge the
// virtual disks that are made here, and reads those that they make.
package vhdformats
