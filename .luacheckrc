std = "luajit"
max_line_length = 100

files["spec"].std = "+busted"
files["examples/embed"] = { globals = { "score" }, read_globals = { "text" } } -- the program's
