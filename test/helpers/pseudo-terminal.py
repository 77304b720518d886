# Runs a program in a pseudo-terminal: pseudo-terminal.py COLUMNS PROGRAM ARGUMENTS...
# Keys come from standard input, and what the program writes goes to standard output. The exit code is the program's.
import fcntl
import os
import pty
import select
import struct
import sys
import termios

columns, command = int(sys.argv[1]), sys.argv[2:]
start, release = os.pipe()
child, terminal = pty.fork()
if child == 0:
    os.read(start, 1)  # waits until the size of the terminal is set
    os.execvp(command[0], command)
fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack('HHHH', 24, columns, 0, 0))
os.write(release, b'x')
sources = [terminal, 0]
while terminal in sources:
    for source in select.select(sources, [], [])[0]:
        try:
            data = os.read(source, 65536)
        except OSError:  # the program has ended
            data = b''
        if not data:
            sources.remove(source)
        else:
            os.write(1 if source == terminal else terminal, data)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 255)
