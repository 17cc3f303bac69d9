from django.urls import path

from agreements import views

app_name = "agreements"
urlpatterns = [
    path("", views.index, name="index"),
    path("<slug:document>/<int:number>/", views.version, name="version"),
    path("<slug:document>/<int:number>/<slug:language>.pdf", views.pdf, name="pdf"),
    path("<slug:document>/<int:number>/questions/", views.questions, name="questions"),
    path("<slug:document>/changes/", views.changes, name="changes"),
]
