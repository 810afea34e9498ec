package vfs

// OS returns the FS of the operating system.
func OS() FS { return nil }
