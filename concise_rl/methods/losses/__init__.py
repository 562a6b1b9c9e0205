"""Policy losses: from log-probs and credit to one sum over tokens whose denominators are those of the whole step."""
