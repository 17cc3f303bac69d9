"""What is agreed: versioned texts and who accepted them, when and how."""
