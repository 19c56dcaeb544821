module concurbench

go 1.19
