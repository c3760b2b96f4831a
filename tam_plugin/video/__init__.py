"""Video file and budget → SampledVideo."""
