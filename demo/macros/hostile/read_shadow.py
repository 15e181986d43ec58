# Tries to read the password hashes of the machine that it runs on.
print(open("/etc/shadow").read())
