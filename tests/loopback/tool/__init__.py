"""What benchmark_model does and prints, with LiteRT underneath."""
