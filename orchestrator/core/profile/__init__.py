"""What a profile may say: settings, their values, files merged into one, combinations refused. No engine flags."""
