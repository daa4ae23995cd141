"""Why an engine ended or harmed a request, from its log and exit status, and the advice. Not the reaction."""
