package main

// exitStatuses are the exit statuses of all commands.
var exitStatuses = []struct {
	status  int
	meaning string
}{
	{0, "Done."},
	{1, "Failed; standard error says why."},
	{2, "The command line is wrong."},
}
