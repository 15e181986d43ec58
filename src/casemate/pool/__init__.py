"""What is made ahead of its use or stays for the next: how many, by whom, and until when."""
